"""Tables in pages of docs/, written by the script that makes them."""

from pathlib import Path

from reprune.files.atomic import write_text


def replace_table(path: Path, script: str, table: str) -> None:
    """What stands between the marks `<!-- script -->` and `<!-- end of script -->` becomes `table`."""
    begin, end = f"<!-- {script} -->\n", f"<!-- end of {script} -->"
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path}: expected the marks {begin.strip()} and {end}")
    write_text(path, f"{before}{begin}{table}{end}{after}")
