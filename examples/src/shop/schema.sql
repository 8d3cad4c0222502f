-- The shop's books, and what stands in them on the first day.

CREATE TABLE orders (
    id    TEXT PRIMARY KEY,
    email TEXT NOT NULL
) STRICT;

-- Money in is positive, money given back is negative. The key is what makes a payment count once.
CREATE TABLE payments (
    key      TEXT NOT NULL UNIQUE,
    order_id TEXT NOT NULL REFERENCES orders,
    cents    INTEGER NOT NULL,
    note     TEXT NOT NULL
) STRICT;

CREATE TABLE stock (
    sku   TEXT PRIMARY KEY,
    units INTEGER NOT NULL
) STRICT;

-- Units that are set aside for an order, until something gives them back.
CREATE TABLE reservations (
    id          TEXT NOT NULL,
    order_id    TEXT NOT NULL REFERENCES orders,
    sku         TEXT NOT NULL REFERENCES stock,
    units       INTEGER NOT NULL,
    released_by TEXT,
    PRIMARY KEY (id, sku)
) STRICT;

-- What was made good, in order, by the key that makes it count once.
CREATE TABLE undone (
    place INTEGER PRIMARY KEY,
    key   TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE outbox (
    key       TEXT NOT NULL UNIQUE,
    recipient TEXT NOT NULL,
    text      TEXT NOT NULL
) STRICT;

CREATE TABLE failures (
    run_id      TEXT PRIMARY KEY,
    function_id TEXT NOT NULL
) STRICT;

INSERT INTO orders VALUES
    ('o-1001', 'ada@example.com'),
    ('o-1002', 'bela@example.com'),
    ('o-1003', 'chen@example.com'),
    ('o-1004', 'dara@example.com'),
    ('o-1005', 'emre@example.com'),
    ('o-1006', 'finn@example.com'),
    ('o-1007', 'gia@example.com'),
    ('o-1008', 'hugo@example.com'),
    ('o-1009', 'ines@example.com'),
    ('o-1010', 'jun@example.com'),
    ('o-1011', 'kaja@example.com'),
    ('o-1012', 'lena@example.com');

-- The checkout of o-1010 did not get as far as the payment, that of o-1011 not even as far as the stock.
INSERT INTO payments VALUES
    ('ch_1001', 'o-1001', 4990, 'card'),
    ('ch_1002', 'o-1002', 1250, 'card');

INSERT INTO stock VALUES ('kettle', 12), ('mug', 40), ('tea', 25);

INSERT INTO reservations (id, order_id, sku, units) VALUES
    ('r-1001', 'o-1001', 'kettle', 1),
    ('r-1001', 'o-1001', 'tea', 2),
    ('r-1002', 'o-1002', 'mug', 1),
    ('r-1004', 'o-1004', 'mug', 4),
    ('r-1005', 'o-1005', 'kettle', 1),
    ('r-1005', 'o-1005', 'mug', 2),
    ('r-1010', 'o-1010', 'mug', 2);
