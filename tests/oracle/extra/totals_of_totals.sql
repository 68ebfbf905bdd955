-- Every aggregate over rows that are taken back; spreads of integers are integers.
-- key: seller
SELECT seller, MIN(n) AS lowest, MAX(n) AS highest, SUM(n) AS total, AVG(n) AS average, COUNT(DISTINCT n) AS numbers,
  STDDEV_POP(n) AS deviation, VAR_POP(n) AS variance, MAX(NULLIF(n, n)) AS nothing
FROM (SELECT A.seller, A.id, COUNT(*) AS n FROM auction A JOIN bid B ON A.id = B.auction GROUP BY A.seller, A.id)
GROUP BY seller;
