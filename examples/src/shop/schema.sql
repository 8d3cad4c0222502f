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
    order_id    TEXT NOT NULL REFERENCES orders,
    sku         TEXT NOT NULL REFERENCES stock,
    units       INTEGER NOT NULL,
    released_by TEXT,
    PRIMARY KEY (order_id, sku)
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
    ('o-1011', 'kaja@example.com');

-- The checkout of o-1010 did not get as far as the payment.
INSERT INTO payments VALUES
    ('charge:o-1001', 'o-1001',  4990, 'card'),
    ('charge:o-1002', 'o-1002',  1250, 'card'),
    ('charge:o-1011', 'o-1011', 11900, 'card');

INSERT INTO stock VALUES ('kettle', 12), ('mug', 40), ('tea', 25);

INSERT INTO reservations (order_id, sku, units) VALUES
    ('o-1001', 'kettle', 1),
    ('o-1001', 'tea', 2),
    ('o-1002', 'mug', 1),
    ('o-1004', 'mug', 4),
    ('o-1005', 'kettle', 1),
    ('o-1005', 'mug', 2),
    ('o-1011', 'kettle', 2),
    ('o-1011', 'mug', 6);
