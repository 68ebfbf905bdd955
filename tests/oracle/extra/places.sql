-- Places two to four, of which the order has nulls.
-- key: auction,place
SELECT auction, bidder, p, place FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY p ASC, price DESC, bidder, url) AS place
  FROM (SELECT auction, bidder, price, url, CASE WHEN price < 200000 THEN NULL ELSE price END AS p FROM bid)
) WHERE place BETWEEN 2 AND 4;
