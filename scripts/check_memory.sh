#!/bin/sh
# Runs unit tests, the fuzz corpus and commands of the tool under valgrind's memcheck: scripts/check_memory.sh BUILD
# Every error counts, and every block that is lost. No suppressions. BUILD/memcheck/logs holds what valgrind found, and
# BUILD/memcheck/seconds what took how long. It takes less than an hour on two busy cores, and so leaves out, since all of these run
# under the address and undefined-behaviour sanitizers (scripts/check_sanitizers.sh), and the whole suite has:
# - of the tests of convolutions, which compute for minutes without valgrind, 22 of 23 cases: the code is the same for each;
# - test_stress, whose threads valgrind runs one at a time; test_cuda*, whose device valgrind does not see;
# - of the tool's tests all but those below, which run every command, most ways to open data and the ways to continue a run.
# The vector kernels beyond AVX2 do not run: valgrind knows no such instructions.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
folder=$build/memcheck
options="-q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,indirect,possible --num-callers=30
  --fair-sched=yes --log-file=$folder/logs/%p"

# One part: a test program and its corpus, or pytest's arguments.
if [ $# -gt 1 ]; then
  shift
  began=$(date +%s)
  case $1 in
    tests/fuzz/* | tests/test_*)
      name=$(basename "$1")
      # shellcheck disable=SC2086 # words
      cd "$build" && set -- valgrind $options "$@"
      ;;
    *)
      name=$(basename "${1%%::*}" .py)-$$
      set -- "$root/scripts/run_pytest.sh" "$folder" "$@"
      ;;
  esac
  NITI_TEST_SHARE=23 "$@" >"$folder/$name.log" 2>&1 || { echo "memcheck: $name failed: $folder/$name.log" | tee -a "$folder/failed"; }
  echo "$(($(date +%s) - began)) $name" >>"$folder/seconds"
  exit 0
fi

command -v valgrind >/dev/null || { echo "memcheck: valgrind is not there: run scripts/setup.sh slow" >&2; exit 1; }
rm -rf "$folder"
mkdir -p "$folder/logs"
: >"$folder/failed"
# The tool is valgrind running the tool, and notes the command.
# shellcheck disable=SC2086 # words
printf '#!/bin/sh\necho "$1" >>%s\nexec valgrind %s %s "$@"\n' "$folder/commands" "$(echo $options)" "$build/niti" >"$folder/niti"
chmod +x "$folder/niti"
{
  for test in "$build"/tests/test_* "$build"/tests/fuzz/fuzz_*; do
    name=$(basename "$test")
    case $name in
      *.* | test_cuda* | test_stress) continue ;;
      fuzz_*) corpus=$root/tests/fuzz/corpus/${name#fuzz_} ;;
      *) corpus= ;;
    esac
    [ -f "$test" ] && [ -x "$test" ] && echo "${test#"$build"/}" $corpus
  done
  sed "s|^|$root/tests/|" <<'END'
cli/test_commands.py -k "help_of_the_whole or completion_knows_commands or a_slip or summary_of_lenet5 or test_info or goes_before_a_file or names_of_no_network"
cli/test_commands.py -k "manual_page_holds and (train or tune)"
cli/test_commands.py -k "data_of or hash_is or what_training_reported or maps_classes or stochastic or names_the_class or fits_any_size or part_of_a_second"
cli/test_resume.py -k "within_an_epoch_is_complete or falls_back or metrics_are_mended or set_aside or other_data_of_equal or just_reports"
cli/test_data_files.py -k "folders_and_standard or bad_file_is or as_viewers or left_out"
cli/test_data_arrays.py -k "what_data_says or table_of_whole or broken_arrays"
cli/test_eval.py -k "numbers_are_no or per_class"
cli/test_fold.py -k "without_norms or trains_on"
cli/test_average.py -k "beside_the_final"
cli/test_validation.py -k "chosen_on_validation or goes_on_with_the_same"
cli/test_extend.py -k "is_the_longer_run"
cli/test_find_lr.py -k "update_sgd or the_table"
cli/test_program.py -k "listing_of_every_layer or one_line_per"
cli/test_tune.py -k "every_convolution_once"
cli/test_train.py -k "save_every or init_copies or events_hold or confusion"
export/test_command.py -k "refusals or what_is_trained"
export/test_replay.py -k "hash_of_the_device or goes_on_training or wrong_logs"
export/test_vectors.py -k "index_and_formats or first_element or as_verilog or cannot_read"
END
} >"$folder/parts"
xargs -P "$(nproc)" -L 1 "$0" "$build" <"$folder/parts"

bad=0
[ ! -s "$folder/failed" ] || bad=1
commands=$("$build/niti" --help | sed -n 's/^  \([a-z-]*\)  *[a-z].*/\1/p')
[ -n "$commands" ]
for command in $commands; do
  grep -qx -e "$command" "$folder/commands" || { bad=1 && echo "memcheck: no test ran niti $command"; }
done
for log in "$folder"/logs/*; do
  [ -s "$log" ] && { bad=1 && echo "memcheck: $log" && head -n 20 "$log"; }
done
echo "memcheck: $(wc -l <"$folder/parts") parts, $(wc -l <"$folder/commands") runs of the tool, $(ls "$folder/logs" | wc -l) processes"
exit $bad
