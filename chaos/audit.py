"""An auditor within the database: it looks at each row that is written, and by whom, and writes down what was wrong.

Who may write the row of a job: the live member that owns it, and one that makes itself its owner. The auditor tells
members by the addresses that their sessions come from; it knows nothing of what they think they are.
"""

from __future__ import annotations

import contextlib
from typing import Any

import network
from hosts import NAMESPACE, Database
from network import BASE, HUB

from services import PASSWORD, USER, PostgreSQL

_POSTGRESQL = (
    "CREATE TABLE audit"
    " (at double precision, what text, number bigint, owner bigint, heir bigint, host text, me bigint)",
    f"""CREATE FUNCTION audit_jobs() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    DECLARE
        host text := host(inet_client_addr());
        me bigint;
        owner bigint := CASE WHEN TG_OP <> 'INSERT' THEN OLD.owner END;
        heir bigint := CASE WHEN TG_OP <> 'DELETE' THEN NEW.owner END;
    BEGIN
        IF host IS NOT NULL THEN
            SELECT max(id) INTO me FROM {NAMESPACE}_members
                WHERE state = 'live' AND split_part(split_part(address, ':', 1), '.', 4) = split_part(host, '.', 4);
            IF me IS NULL OR (owner IS DISTINCT FROM me AND heir IS DISTINCT FROM me) THEN
                INSERT INTO audit VALUES (extract(epoch FROM clock_timestamp()), TG_OP,
                    CASE WHEN TG_OP = 'DELETE' THEN OLD.number ELSE NEW.number END, owner, heir, host, me);
            END IF;
        END IF;
        RETURN NULL;
    END $$""",
    f"CREATE TRIGGER audit_jobs AFTER INSERT OR UPDATE OR DELETE ON {NAMESPACE}_jobs"
    " FOR EACH ROW EXECUTE FUNCTION audit_jobs()",
)

_MARIADB_BODY = """
    IF SUBSTRING_INDEX(USER(), '@', -1) LIKE '%.%.%.%' AND NOT EXISTS (
        SELECT 1 FROM {namespace}_members WHERE state = 'live' AND id IN ({owners})
        AND SUBSTRING_INDEX(SUBSTRING_INDEX(address, ':', 1), '.', -1) = SUBSTRING_INDEX(USER(), '.', -1)
    ) THEN
        INSERT INTO audit VALUES (UNIX_TIMESTAMP(NOW(6)), '{what}', {row}.number, {owner}, {heir}, USER(), NULL);
    END IF
"""


def audit(database: Database, number: int) -> None:
    """Have the auditor begin, and try it out on the job of this number. Raises SystemExit if it is blind."""
    database.service.sql(*(_POSTGRESQL if isinstance(database.service, PostgreSQL) else _mariadb()))
    with contextlib.closing(_outsider(database)) as connection, connection.cursor() as cursor:
        cursor.execute(f"UPDATE {NAMESPACE}_jobs SET attempts = attempts + 1 WHERE number = {number}")
        connection.commit()
    if [row[:2] for row in wrong_writes(database)] != [("UPDATE", number)]:
        raise SystemExit(f"the auditor does not see who writes what is not his: {wrong_writes(database)}")
    database.service.sql("DELETE FROM audit")


def _outsider(database: Database) -> Any:
    """A session that comes from no member's address."""
    host, port = network.address(BASE, HUB), database.service.port
    if isinstance(database.service, PostgreSQL):
        import psycopg

        return psycopg.connect(host=host, port=port, user=USER, password=PASSWORD, dbname="geartrain")
    import pymysql  # type: ignore[import-untyped]

    return pymysql.connect(host=host, port=port, user=USER, password=PASSWORD, database="geartrain")


def _mariadb() -> list[str]:
    statements = [
        "CREATE TABLE audit (at double, what varchar(10), number bigint, owner bigint, heir bigint, host varchar(200),"
        " me bigint) ENGINE=InnoDB"
    ]
    for what, owner, heir in (("INSERT", "NULL", "NEW.owner"), ("UPDATE", "OLD.owner", "NEW.owner"),
                              ("DELETE", "OLD.owner", "NULL")):  # fmt: skip
        row = "OLD" if what == "DELETE" else "NEW"
        body = _MARIADB_BODY.format(
            namespace=NAMESPACE, owners=f"{owner}, {heir}", what=what, row=row, owner=owner, heir=heir
        )
        statements.append(
            f"CREATE TRIGGER audit_{what.lower()} AFTER {what} ON {NAMESPACE}_jobs FOR EACH ROW BEGIN {body}; END"
        )
    return statements


def wrong_writes(database: Database) -> list[Any]:
    """What was written by who had no right to, in order; the database must be up."""
    return list(database.service.sql("SELECT what, number, owner, heir, host, me FROM audit ORDER BY at"))
