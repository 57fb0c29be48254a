#!/bin/sh
# Install what the tests of windows and pages need, where this user may: else say what is left out.
set -u
window="xvfb libgl1-mesa-dri libegl1 libdbus-1-3 libfontconfig1 libglib2.0-0 libxkbcommon-x11-0
libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"

there() { command -v "$1" >/dev/null 2>&1; }

installed() {
    [ "$(uname)" = Linux ] && there apt-get && [ "$(id -u)" = 0 ] || return 1
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

# shellcheck disable=SC2086
if ! { there Xvfb && dpkg -s $window >/dev/null 2>&1; } && ! installed $window && ! there Xvfb; then
    echo "No Xvfb here, and it could not be installed: tests that open a napari window are skipped." >&2
    echo "On Debian or Ubuntu: sudo apt-get install" $window >&2
fi
if ! there chromium && ! there chromium-browser && ! there google-chrome && ! installed chromium; then
    echo "No Chromium here, and it could not be installed: tests of pages are skipped." >&2
fi
exit 0
