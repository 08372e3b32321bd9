/* niti: finds the command that the first argument names and runs it. */
#include <string.h>

#include "cli.h"
#include "config/closest.h"

static bool is(const char *word, const char *brief, const char *full) {
  return strcmp(word, brief) == 0 || strcmp(word, full) == 0;
}

/* The exit code, once what was printed is out. */
static int finish(int code) {
  if ((fflush(stdout) == 0 && !ferror(stdout)) || code != EXIT_OK) return code;
  say("cannot write to standard output");
  return EXIT_FAILED; /* no object: there is no place for it */
}

static int run(const Command *command, int argc, char **argv) {
  const int code = command->run(argc, argv);
  if (code == EXIT_OK && !json_is_whole())
    return finish(fail_with(EXIT_FAILED, "out of memory: a part of the result is missing"));
  return finish(code);
}

int main(int argc, char **argv) {
  signals_watch(); /* first: they may be here at once */
  mapping_watch();
  file_limit_watch();
  descriptors_open();
  json_watch();
  output_choose(argc, argv);
  const int refused = stack_check();
  if (refused >= 0) return refused;
  if (argc < 2) {
    help_print(stderr);
    return EXIT_USAGE;
  }
  if (is(argv[1], "-h", "--help")) return run(command_find("help"), argc - 1, argv + 1);
  if (is(argv[1], "-V", "--version")) {
    printf("niti %s\n", niti_version());
    return finish(EXIT_OK);
  }
  const Command *command = command_find(argv[1]);
  if (command) return run(command, argc - 1, argv + 1);
  char hint[NITI_HINT_MAX];
  const int code = fail_with(EXIT_USAGE, "unknown command '%s'%s", argv[1], command_hint(hint, argv[1]));
  help_print(stderr);
  return code;
}
