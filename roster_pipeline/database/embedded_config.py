"""The configuration of the embedded server: postgresql.conf, and which users may connect.

Does not belong here: starting the server (`embedded.py`), and settings of single sessions (`engine.py`).
"""

import os
import pwd
from pathlib import Path

from roster_pipeline.database.embedded_place import DATABASE_USER, PORT, Place


def write_configuration(place: Place) -> Path:
    """Writes the configuration, and returns the path of postgresql.conf.

    It is written at every start, so that new defaults of a release apply. `alter system` overrides it.
    """
    user = pwd.getpwuid(os.geteuid()).pw_name
    _write(place.base / "pg_hba.conf", "local all all peer map=roster\n")
    _write(place.base / "pg_ident.conf", f'roster "{user}" {DATABASE_USER}\n')
    lines = (f"{name} = {_quoted(str(value))}\n" for name, value in _values(place).items())
    configuration = place.base / "postgresql.conf"
    _write(configuration, "# Written at every start. Change a value with `alter system set`.\n" + "".join(lines))
    return configuration


def _values(place: Place) -> dict[str, object]:
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return {
        "hba_file": place.base / "pg_hba.conf",
        "ident_file": place.base / "pg_ident.conf",
        "listen_addresses": "",
        "port": PORT,
        "unix_socket_directories": place.socket_directory,
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "timezone": "UTC",
        # Small values, because the application or a developer's desktop needs memory on the same machine.
        "shared_buffers": f"{min(max(memory_mb // 16, 128), 512)}MB",
        "effective_cache_size": f"{max(memory_mb // 2, 256)}MB",
        "maintenance_work_mem": "128MB",
        # A district's first load writes much at once. Fewer checkpoints write fewer full pages.
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "jit": "off",  # For statements of much less than a second, compiling takes longer than it saves.
        "random_page_cost": "1.1",
        # Statements, their parameters and the messages of failed ones contain names of children. They go to the client only, which decides
        # what it repeats. The log has only the server's messages about itself (LOG and above, without DETAIL).
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_autovacuum_min_duration": "-1",
        "log_checkpoints": "off",
        "log_lock_waits": "off",
        "log_temp_files": "-1",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] ",
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)  # The server's account must be able to read it. The directory above keeps other users out.


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
