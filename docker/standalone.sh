#!/usr/bin/env bash
# `make airflow`: Airflow standalone on the workspace of MMLORA_HOME (./var), for one person on one machine.
#
# It listens on 127.0.0.1 only, and its one user has a generated password. PORT=8081 moves it elsewhere.
set -euo pipefail
cd "$(dirname "$0")/.."

export PATH="$PWD/.venv/bin:$PATH"
PORT="${PORT:-8080}"
mkdir -p "${MMLORA_HOME:=var}"
MMLORA_HOME="$(cd "$MMLORA_HOME" && pwd)" # absolute: a task may run in another folder
export MMLORA_HOME
export AIRFLOW_HOME="$MMLORA_HOME/airflow"
export AIRFLOW__CORE__DAGS_FOLDER="$PWD/dags"
export AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False
# As many tasks at once as there are cores, each on one: tasks that share cores wait for each other.
export AIRFLOW__CORE__PARALLELISM="${AIRFLOW__CORE__PARALLELISM:-$(getconf _NPROCESSORS_ONLN)}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export AIRFLOW__API__HOST=127.0.0.1
export AIRFLOW__API__PORT="$PORT"
export AIRFLOW__API__BASE_URL="http://127.0.0.1:$PORT"
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
# Tasks talk to the API server on this machine, never through a proxy.
export NO_PROXY="127.0.0.1,localhost${NO_PROXY:+,$NO_PROXY}"
export no_proxy="$NO_PROXY"

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

if answers; then
    echo "port $PORT is taken: stop what listens there, or PORT=8081 make airflow" >&2
    exit 2
fi
[ -d "$MMLORA_HOME/offline" ] || echo "$MMLORA_HOME holds no data yet: the DAGs will fail until \`make demo\` or \`mmlora data\`."

mkdir -p "$AIRFLOW_HOME"
passwords="$AIRFLOW_HOME/simple_auth_manager_passwords.json.generated"
[ -s "$passwords" ] || (
    umask 077
    python -c 'import json, secrets; print(json.dumps({"admin": secrets.token_urlsafe(12)}))' >"$passwords"
)
password="$(python -c 'import json, sys; print(json.load(open(sys.argv[1]))["admin"])' "$passwords")"
log="$AIRFLOW_HOME/standalone.log"

echo "Airflow is starting; this takes about half a minute."
# A group of its own, so that Ctrl-C reaches it once, through `stop`: the scheduler hangs when a terminal
# interrupts it and `standalone` then ends it as well.
set -m
airflow standalone >"$log" 2>&1 &
airflow=$!
set +m

stop() {
    trap - INT TERM EXIT
    kill -INT "$airflow" 2>/dev/null || return 0
    echo "Airflow is stopping."
    for _ in $(seq 20); do
        kill -0 "$airflow" 2>/dev/null || break
        sleep 1
    done
    kill -KILL -- "-$airflow" 2>/dev/null || true
}
trap 'stop; exit 130' INT TERM
trap stop EXIT

until answers; do
    sleep 1
    kill -0 "$airflow" 2>/dev/null || { echo "Airflow stopped; its log is $log" >&2; exit 1; }
done
echo "Airflow is ready: http://127.0.0.1:$PORT"
echo "  log in as       admin"
echo "  password        $password   (kept in $passwords)"
echo "  workspace       $MMLORA_HOME"
echo "  log             $log"
echo "  stop it         Ctrl-C"
wait "$airflow"
