-- Windows over the results of smaller windows, which carry their time under another name.
WITH small AS (
  SELECT window_time AS moment, bidder, SUM(price) AS spent, COUNT(DISTINCT auction) AS auctions
  FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '2' SECOND))
  GROUP BY window_start, window_end, window_time, bidder
)
SELECT window_start, window_end, MAX(spent) AS most, SUM(auctions) AS auctions, COUNT(*) AS n
FROM TABLE(HOP(TABLE small, DESCRIPTOR(moment), INTERVAL '4' SECOND, INTERVAL '12' SECOND))
GROUP BY window_start, window_end;
