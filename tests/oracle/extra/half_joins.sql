-- Semi and anti joins with what is aggregated.
-- key: id
SELECT id, name FROM person P
WHERE P.id IN (SELECT seller FROM auction GROUP BY seller HAVING COUNT(*) >= 2)
  AND NOT EXISTS (SELECT 1 FROM (SELECT bidder, MAX(price) AS most FROM bid GROUP BY bidder) B
    WHERE B.bidder = P.id AND B.most > 90000000);
