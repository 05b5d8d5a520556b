"""Says how many numbers the index of a data directory (the argument) holds."""

from __future__ import annotations

import sys
from pathlib import Path

from hub.adapters.columns.index import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog
from hub.app.settings import INDEX_DIR, LOG_FILE
from tests.bench.processes import say
from tests.bench.world import PARTITIONS


def main() -> None:
    data = Path(sys.argv[1])
    index = ColumnIndex(data / INDEX_DIR, PARTITIONS, SqliteLog(data / LOG_FILE, PARTITIONS).log_id)
    numbers = index.count()
    index.close()
    say(numbers=numbers)


if __name__ == "__main__":
    main()
