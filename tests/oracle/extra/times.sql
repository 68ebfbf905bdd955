-- Functions of time.
SELECT auction, CEIL(rowtime TO MINUTE) AS a, FLOOR(rowtime TO WEEK) AS b, DATE_FORMAT(rowtime, 'EEE, d MMM yyyy H:m:s.SSS') AS c,
  TIMESTAMPADD(MONTH, 2, rowtime) AS d, CAST(rowtime AS TIMESTAMP(0)) AS e, DAYOFWEEK(rowtime) AS f, WEEK(rowtime) AS g,
  TO_TIMESTAMP('29.02.2024 10:11', 'dd.MM.yyyy HH:mm') AS h, FROM_UNIXTIME(price) AS i, CAST(rowtime AS STRING) AS j,
  UNIX_TIMESTAMP('2024-02-29 10:11:12') AS k, CAST(rowtime AS DATE) AS l
FROM bid WHERE price > 20000000;
