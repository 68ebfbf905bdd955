-- q13 bids with a value from a small bounded table, here the sellers' auctions of one category instead of Nexmark's
-- side file: unbounded regular join of a computed key, append-only
SELECT B.auction, B.bidder, B.price, B.`dateTime`, S.itemName AS side_value
FROM bid AS B
JOIN (SELECT id, itemName FROM auction WHERE MOD(id, 10) = 0) AS S
ON B.auction - MOD(B.auction, 10) = S.id;
