-- An anti join within windows, as Flink's documentation writes it.
SELECT P.id, P.name, P.window_start
FROM (SELECT * FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))) P
WHERE P.id NOT IN (
  SELECT seller FROM (SELECT * FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(rowtime), INTERVAL '10' SECOND))) A
  WHERE P.window_start = A.window_start AND P.window_end = A.window_end
);
