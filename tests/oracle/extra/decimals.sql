-- Precision and scale of quotients.
SELECT auction, CAST(price AS DECIMAL(12,2)) / 3 AS a, CAST(price AS DECIMAL(12,2)) * 1.21 AS b, price / 7.0 AS c,
  CAST(price AS DECIMAL(10,2)) / CAST(7 AS DECIMAL(5,3)) AS d, ROUND(price / 7.0, 2) AS e, -price / 7 AS f,
  CEIL(price / 7.0) AS g, price / 3.00000 AS h, MOD(-price, 7) AS i, 1 / 3.0 AS j, price / NULLIF(MOD(price, 2), 0) AS k
FROM bid WHERE price > 20000000;
