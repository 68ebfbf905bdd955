-- Bounds that are open on one side, and a condition beside them.
SELECT A.id, P.id AS person, P.name
FROM auction A FULL JOIN person P
ON A.seller = P.id AND A.rowtime > P.rowtime - INTERVAL '1' SECOND AND A.rowtime <= P.rowtime + INTERVAL '4' SECOND
  AND A.category > 10;
