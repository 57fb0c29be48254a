#!/bin/sh
# Install what a napari window needs for the tests, where this user may: else say what is left out.
set -u
command -v Xvfb >/dev/null 2>&1 && exit 0
packages="xvfb libgl1-mesa-dri libegl1 libdbus-1-3 libfontconfig1 libglib2.0-0 libxkbcommon-x11-0
libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-shape0"
if [ "$(uname)" = Linux ] && command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $packages >/dev/null 2>&1 && exit 0
fi
echo "No Xvfb here, and it could not be installed: tests that open a napari window are skipped." >&2
echo "On Debian or Ubuntu: sudo apt-get install" $packages >&2
exit 0
