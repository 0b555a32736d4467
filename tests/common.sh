# What the scripts of this directory share; they source it from the root of the repository.

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  sudo=(sudo)
  # Cargo builds as the user; only the test programs run as root.
  host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${host}_RUNNER=sudo -E"
fi

# The tests mostly wait for servers, so more of them than cores may run.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-4}"

# step COMMAND...: prints the command and runs it.
step() { printf '\n== %s\n' "$*"; "$@"; }

# packages PROGRAM:PACKAGE...: installs the packages whose program or file is missing.
packages() {
  local pair missing=()
  for pair in "$@"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null ||
      [ -e "${pair%%:*}" ] || missing+=("${pair##*:}")
  done
  if [ "${#missing[@]}" -gt 0 ]; then
    "${sudo[@]}" apt-get update -q
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "${missing[@]}"
  fi
}
