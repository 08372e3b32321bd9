/* niti: the table of commands. */
#include <string.h>

#include "cli.h"

static const Command *const commands[] = {
    &command_train, &command_eval, &command_predict, &command_summary, &command_program,
    &command_info,  &command_data, &command_hash,    &command_bench,
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to) {
  fprintf(to,
          "niti %s: training neural networks with integers only\n\nusage: niti COMMAND [ARGUMENTS] (niti COMMAND --help tells "
          "more)\n\n",
          niti_version());
  for (size_t i = 0; i < COMMANDS; ++i) fprintf(to, "  %-8s %s\n", commands[i]->name, commands[i]->summary);
  fprintf(to,
          "\nexit codes: 0 done; 1 failed, with one line on standard error; 2 wrong usage;\n"
          "            130 or 143 stopped by SIGINT or SIGTERM after saving (train --resume goes on)\n");
}

int main(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return EXIT_USAGE;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
    print_help(stdout);
    return EXIT_OK;
  }
  if (strcmp(argv[1], "--version") == 0) {
    printf("niti %s\n", niti_version());
    return EXIT_OK;
  }
  for (size_t i = 0; i < COMMANDS; ++i) {
    if (strcmp(argv[1], commands[i]->name) != 0) continue;
    int code = commands[i]->run(argc - 1, argv + 1);
    if (fflush(stdout) != 0 && code == EXIT_OK) {
      fprintf(stderr, "niti: cannot write to standard output\n");
      code = EXIT_FAILED;
    }
    return code;
  }
  fprintf(stderr, "niti: unknown command '%s'\n", argv[1]);
  print_help(stderr);
  return EXIT_USAGE;
}
