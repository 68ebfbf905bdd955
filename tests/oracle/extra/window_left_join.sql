-- The window of the other side is null where there is no other side.
SELECT P.id, P.name, A.itemName, P.window_start AS person_window, A.window_end AS auction_window
FROM (SELECT * FROM TABLE(TUMBLE(TABLE person, DESCRIPTOR(rowtime), INTERVAL '7' SECOND))) P
LEFT JOIN (SELECT * FROM TABLE(TUMBLE(TABLE auction, DESCRIPTOR(rowtime), INTERVAL '7' SECOND))) A
ON P.id = A.seller AND P.window_start = A.window_start AND P.window_end = A.window_end AND A.category <> 10;
