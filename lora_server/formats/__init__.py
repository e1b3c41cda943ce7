"""Container formats, read into a tensor table: pure, bounded, suspicious."""
