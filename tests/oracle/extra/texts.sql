-- Functions of texts, with nulls.
SELECT auction, POSITION('nex' IN url) AS a, INITCAP('one TWO') AS b, CONCAT_WS('|', channel, NULLIF(channel, 'Apple'), 'z') AS c,
  CAST(' 12 ' AS BIGINT) AS d, TRIM(LEADING 'A' FROM channel) AS e, REGEXP_EXTRACT(url, 'channel_id=([^&]*)', 1) AS f,
  SPLIT_INDEX(url, '/', 3) AS g, TRANSLATE(channel, 'ape-', 'AP') AS h, SUBSTRING(channel, -3, 2) AS i,
  CAST(price > 30000000 AS STRING) AS j, url LIKE '%\_id%' ESCAPE '\' AS k, TRY_CAST(channel AS INT) AS l,
  channel || NULLIF(channel, 'Google') AS m, channel IS DISTINCT FROM NULLIF(channel, 'Apple') AS n
FROM bid WHERE price > 20000000;
