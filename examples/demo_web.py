"""The dashboard of a made-up company, with nothing but Python: `python examples/demo_web.py`.

Stores the entries of Lumen Books with a made-up past, starts a real celery beat and a real celery
worker, and serves the dashboard on loopback until Ctrl-C.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import company
from demo import Demo, DemoError
from waitress.server import create_server

from beatstore.web import Actor, Dashboard


def main() -> int:
    """Serve until Ctrl-C, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8555, help="default: 8555")
    port = parser.parse_args().port
    with tempfile.TemporaryDirectory(prefix="beatstore-demo-") as folder:
        demo = Demo(Path(folder))
        demo.store.migrate()
        print("Making up 90 days of Lumen Books …", flush=True)
        company.fill(demo.store, task="demo_app.note")
        dashboard = Dashboard(demo.store, authorize=lambda _: Actor("you", can_write=True))
        try:
            server = create_server(dashboard, listen=f"127.0.0.1:{port}")
        except OSError as error:
            print(f"Port {port} can't be used ({error}): write --port 8556.", file=sys.stderr)
            return 1
        try:
            demo.start("worker", "--concurrency=1", "--loglevel=WARNING")
            demo.start("beat", "--scheduler=beatstore:DBScheduler", "--pidfile=")
            demo.wait_for_beat()
            print(f"Open http://127.0.0.1:{port}/ and end with Ctrl-C.", flush=True)
            server.run()
        except DemoError as error:
            print(f"\n{error}", file=sys.stderr)
            demo.show_logs()
            return 1
        except KeyboardInterrupt:
            pass
        finally:
            server.close()
            demo.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
