"""Log two users into a running trial hub, import the library in a kernel of each, and tell what each one takes.

    .venv-hub/bin/python course/hub/try_two_users.py > docs/instructors/measured_hub.json

The hub was started with `make hub TRIAL=1` and the password that REGNDE_HUB_PASSWORD has here, too.
"""

import json
import os
import re
import sys
import time
import uuid

import psutil
import requests
import websocket

BASE = os.environ.get("REGNDE_HUB_URL", "http://127.0.0.1:8000")
CODE = "import os, regnde\nprint(os.path.exists('problem_sets'), os.environ.get('OMP_NUM_THREADS'))"
PATIENCE = 300


def logged_in(name):
    """Return a session of a user whose server answers, and the seconds until it did."""
    session = requests.Session()
    form = session.get(f"{BASE}/hub/login").text
    xsrf = re.search(r'name="_xsrf" value="([^"]+)"', form)[1]
    answers = {"username": name, "password": os.environ["REGNDE_HUB_PASSWORD"], "_xsrf": xsrf}
    session.post(f"{BASE}/hub/login?next=", data=answers).raise_for_status()
    began = time.monotonic()
    session.get(f"{BASE}/hub/spawn")
    while session.get(f"{BASE}/user/{name}/api/status").status_code != 200:
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"the server of {name} did not answer within {PATIENCE} s")
        time.sleep(1)
        session.get(f"{BASE}/user/{name}/lab")
    return session, time.monotonic() - began


def printed(session, name, code):
    """Run code in a new kernel of a user; return what it prints."""
    own = [cookie for cookie in session.cookies if cookie.path in ("/", f"/user/{name}/")]
    token = next(cookie.value for cookie in reversed(own) if cookie.name == "_xsrf")
    made = session.post(f"{BASE}/user/{name}/api/kernels", headers={"X-XSRFToken": token}, json={"name": "python3"})
    made.raise_for_status()
    address = f"{BASE.replace('http', 'ws', 1)}/user/{name}/api/kernels/{made.json()['id']}/channels"
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in own)
    channel = websocket.create_connection(address, cookie=cookies, timeout=PATIENCE)
    header = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": name}
    header |= {"msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channel.send(json.dumps(message))
    text, ended = [], False
    while not ended:
        heard = json.loads(channel.recv())
        mine = heard["parent_header"].get("msg_id") == header["msg_id"]
        if mine and heard["msg_type"] == "stream":
            text.append(heard["content"]["text"])
        if mine and heard["msg_type"] == "error":
            sys.exit(f"{name}: {heard['content']['ename']}: {heard['content']['evalue']}")
        ended = mine and heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle"
    return "".join(text).strip()


def memory(what):
    """Return resident megabytes of each process whose command has a word, largest first."""
    found = psutil.process_iter(["cmdline", "memory_info"])
    sizes = [p.info["memory_info"].rss for p in found if what in " ".join(p.info["cmdline"] or [])]
    return sorted((round(size / 2**20) for size in sizes), reverse=True)


def main():
    """Try it with ada and ben; print what was found as JSON."""
    users = {name: logged_in(name) for name in ("ada", "ben")}
    said = {name: printed(session, name, CODE) for name, (session, _) in users.items()}
    refused = users["ada"][0].get(f"{BASE}/user/ben/api/status").status_code
    found = {
        "users": sorted(said),
        "seconds_until_a_server_answers": {name: round(seconds) for name, (_, seconds) in users.items()},
        "problem_sets_there_and_threads": said,
        "ada_asks_for_ben_and_gets": refused,
        "memory_mb_of_each_server": memory("jupyterhub-singleuser"),
        "memory_mb_of_each_kernel_with_the_library": memory("/kernel-"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
