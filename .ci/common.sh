# What .ci/run and .ci/nightly share; sourced from the root of the checkout. `step NAME` begins a step; the
# seconds of each are printed when it ends, and all of them at the end.
set -euo pipefail
scratch=$(mktemp -d)
step_name=""
table=""

end_step() {
  [ -n "$step_name" ] || return 0
  table+=$(printf '%6d s  %s' $((SECONDS - step_began)) "$step_name")$'\n'
  printf -- '-- %d s: %s\n' $((SECONDS - step_began)) "$step_name"
  step_name=""
}

step() {
  end_step
  step_name=$*
  step_began=$SECONDS
  printf '\n== %s\n' "$step_name"
}

finish() {
  local status=$?
  [ $status = 0 ] || printf '\nFAILED in: %s\n' "$step_name"
  end_step
  printf '\n%s%6d s  in all\n' "$table" "$SECONDS"
  rm -rf "$scratch"
}
trap finish EXIT

virtual_environment() {
  step "virtual environment"
  "${PYTHON:-python3}" -m venv "$scratch/venv"
  export PATH="$scratch/venv/bin:$PATH"
  python -m pip install -q --upgrade pip
}

# The README's test command is the one that a newcomer types: "INSTALL && TEST".
test_command=$(sed -n '/<!-- test-command -->/,/^```$/{/^python/p}' README.md)
[ -n "$test_command" ] || { echo "README.md has no test command"; exit 1; }

# Runs Python, which has no sanitizer in it, on libraries that have.
sanitized() {
  LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 "$@"
}
