#!/bin/sh
# Run a command with a display: the one that is there, or Xvfb with software OpenGL.
#
#   tools/with-display.sh pytest tests/napari
#
# Without Xvfb the command runs all the same, and says so; tests that open a window then skip.
# What a bare Debian 12 needs:
#   apt-get install --no-install-recommends xvfb libgl1-mesa-dri libegl1 libdbus-1-3 \
#       libfontconfig1 libglib2.0-0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 \
#       libxcb-keysyms1 libxcb-shape0
set -u

if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
    exec "$@"
fi
if ! command -v Xvfb >/dev/null 2>&1; then
    echo "with-display: no display and no Xvfb: tests that open a window will be skipped" >&2
    exec "$@"
fi

scratch=$(mktemp -d) || exit 1
chmod 700 "$scratch"
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Xvfb picks a free number and writes it into the file once it listens.
Xvfb -displayfd 3 -screen 0 1600x1200x24 +extension GLX +render -noreset -nolisten tcp \
    3>"$scratch/number" >"$scratch/log" 2>&1 &
server=$!
tries=0
while [ ! -s "$scratch/number" ]; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "with-display: Xvfb did not start:" >&2
        cat "$scratch/log" >&2
        exit 1
    fi
    sleep 0.1
done

DISPLAY=":$(cat "$scratch/number")"
export DISPLAY
export LIBGL_ALWAYS_SOFTWARE=1 QT_QPA_PLATFORM=xcb
: "${XDG_RUNTIME_DIR:=$scratch}"
export XDG_RUNTIME_DIR
"$@"
