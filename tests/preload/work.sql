CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, weight INTEGER, body BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO item SELECT i, 'name ' || (i * 7919 % 40009), i % 97, zeroblob(i % 300) FROM n;
INSERT INTO item SELECT 100000 + id, name, weight, zeroblob(200000) FROM item WHERE id <= 40;
CREATE INDEX by_name ON item (name);
SELECT count(*), sum(weight), sum(length(body)) FROM item;
SELECT weight, count(*), min(name) FROM item GROUP BY weight ORDER BY count(*) DESC, weight LIMIT 5;
SELECT length(group_concat(name)) FROM (SELECT name FROM item ORDER BY name);
SELECT length(hex(body)) FROM item WHERE id = 100001;
DELETE FROM item WHERE id % 3 = 0;
VACUUM;
SELECT count(*), max(name) FROM item;
