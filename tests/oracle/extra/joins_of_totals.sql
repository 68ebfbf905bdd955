-- Three changelogs, each of which is joined with the others from both sides.
-- key: seller,bidder,person
SELECT a.k AS seller, b.k AS bidder, c.k AS person, a.n, b.n AS bids, c.n AS persons
FROM (SELECT seller AS k, COUNT(*) AS n FROM auction GROUP BY seller) a
FULL JOIN (SELECT bidder AS k, COUNT(*) AS n FROM bid GROUP BY bidder) b ON a.k = b.k
FULL JOIN (SELECT id AS k, COUNT(*) AS n FROM person GROUP BY id) c ON b.k = c.k;
