-- The two busiest auctions of each channel in each window; a key of the groups is computed.
SELECT * FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, ch ORDER BY n DESC, auction) AS place
  FROM (
    SELECT window_start, window_end, UPPER(channel) AS ch, auction, COUNT(*) AS n, MIN(url) AS url
    FROM TABLE(HOP(TABLE bid, DESCRIPTOR(rowtime), INTERVAL '5' SECOND, INTERVAL '15' SECOND, INTERVAL '2' SECOND))
    GROUP BY window_start, window_end, UPPER(channel), auction
  ) WHERE ch IN ('APPLE', 'GOOGLE')
) WHERE place <= 2;
