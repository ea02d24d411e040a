"""A JupyterHub for a class on one machine: `make hub` starts it; see docs/instructors/serving.md.

Everybody logs in with an account of this machine and works as that account, in a folder that only it can read.
REGNDE_HUB_TRIAL=1 is for trying it out alone: any name, one password, every user under your own account.
"""

import os
import shutil
import sys
from pathlib import Path

c = get_config()  # noqa: F821

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "my_class" / "hub"
STATE.mkdir(parents=True, exist_ok=True)
TRIAL = os.environ.get("REGNDE_HUB_TRIAL") == "1"

c.JupyterHub.bind_url = os.environ.get("REGNDE_HUB_URL", "http://127.0.0.1:8000")
c.JupyterHub.db_url = f"sqlite:///{STATE / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
c.ConfigurableHTTPProxy.command = [str(Path(sys.prefix) / "proxy/node_modules/.bin/configurable-http-proxy")]
c.ConfigurableHTTPProxy.pid_file = str(STATE / "proxy.pid")

c.Spawner.cmd = [str(Path(sys.prefix) / "bin/jupyterhub-singleuser")]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 120
c.Spawner.http_timeout = 120
# One thread for each user: forty networks that each take all cores are slower than forty that take one.
c.Spawner.environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
c.JupyterHub.concurrent_spawn_limit = 10


def give_assignments(spawner):
    """Copy released problem sets that the user does not have yet; what is there is never touched."""
    home = Path(spawner.home_dir) if TRIAL else Path(f"~{spawner.user.name}").expanduser()
    for source in sorted((ROOT / "my_class" / "release").glob("*/*.ipynb")):
        target = home / "problem_sets" / source.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
            if not TRIAL:
                for path in (target.parent, target):
                    shutil.chown(path, user=spawner.user.name)


c.Spawner.pre_spawn_hook = give_assignments

if TRIAL:
    c.JupyterHub.authenticator_class = "shared-password"
    c.SharedPasswordAuthenticator.user_password = os.environ["REGNDE_HUB_PASSWORD"]
    c.Authenticator.allow_all = True
    c.JupyterHub.spawner_class = "simple"
    c.SimpleLocalProcessSpawner.home_dir_template = str(STATE / "{username}")
    if os.getuid() == 0:
        c.Spawner.args = ["--allow-root"]
else:
    c.JupyterHub.authenticator_class = "pam"
    c.Authenticator.allowed_users = set(os.environ.get("REGNDE_HUB_USERS", "").split())
