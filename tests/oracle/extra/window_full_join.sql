-- Cumulating windows, joined from both sides.
SELECT P.id, A.id AS auction, COALESCE(P.window_start, A.window_start) AS ws, COALESCE(P.window_end, A.window_end) AS we
FROM (SELECT * FROM TABLE(CUMULATE(TABLE person, DESCRIPTOR(rowtime), INTERVAL '5' SECOND, INTERVAL '20' SECOND))) P
FULL JOIN (SELECT * FROM TABLE(CUMULATE(TABLE auction, DESCRIPTOR(rowtime), INTERVAL '5' SECOND, INTERVAL '20' SECOND))) A
ON P.id = A.seller AND P.window_start = A.window_start AND P.window_end = A.window_end AND A.reserve > 1000;
