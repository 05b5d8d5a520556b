"""The number index: sorted columns on disk."""

from hub.adapters.columns.index import ColumnIndex, IndexInUse

__all__ = ["ColumnIndex", "IndexInUse"]
