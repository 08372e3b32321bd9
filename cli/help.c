/* niti help: what the commands and their options are, from the tables. */
#include <string.h>

#include "cli.h"

enum { WIDTH = 110, COLUMN = 28 };

static int run(int argc, char **argv);
static const Option options[] = {{0}};
const Command command_help = {"help",  "[COMMAND]", "show what a command does and its options", "niti help train", "COMMAND",
                              options, run};

void help_fill(FILE *to, const char *text, int at, int indent, int width) {
  bool first = true;
  while (*text) {
    const int length = (int)strcspn(text, " ");
    if (!first && at + 1 + length > width) {
      fprintf(to, "\n%*s", indent, "");
      at = indent;
      first = true;
    }
    fprintf(to, "%s%.*s", first ? "" : " ", length, text);
    at += length + (first ? 0 : 1);
    first = false;
    text += length;
    text += strspn(text, " ");
  }
  fputc('\n', to);
}

static void print_option(FILE *to, const char *left, const char *help) {
  const int length = fprintf(to, "  %s", left);
  if (length + 2 > COLUMN) {
    fprintf(to, "\n%*s", COLUMN, "");
  } else {
    fprintf(to, "%*s", COLUMN - length, "");
  }
  help_fill(to, help, COLUMN, COLUMN, WIDTH);
}

void help_print_command(FILE *to, const Command *command) {
  fprintf(to, "usage: niti %s %s\n\n%s\n\noptions:\n", command->name, command->arguments, command->summary);
  for (const Option *o = command->options; o->name; ++o) {
    char left[64];
    (void)snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    print_option(to, left, o->help);
  }
  print_option(to, "-h, --help", "this text");
  fprintf(to, "\nexample:\n  %s\n", command->example);
}

void help_print(FILE *to) {
  fprintf(to, "niti %s: training neural networks with integers only\n\nusage: niti COMMAND [ARGUMENTS]\n\n", niti_version());
  for (const Command *const *c = commands; *c; ++c) {
    if ((*c)->summary) fprintf(to, "  %-10s %s\n", (*c)->name, (*c)->summary);
  }
  fprintf(to,
          "\n`niti help COMMAND` or `niti COMMAND --help` explains a command, `niti --version` prints the version.\n"
          "exit codes: 0 done; 1 failed, with one line on standard error; 2 wrong usage;\n"
          "            3 another rank no longer answers;\n"
          "            129, 130 or 143 stopped by SIGHUP, SIGINT or SIGTERM, 141 since the reader of the output is gone;\n"
          "            a run that has begun is saved first, and train --resume continues it\n");
}

static int run(int argc, char **argv) {
  int count;
  const int code = options_parse(&command_help, NULL, argc, argv, &count);
  if (code != -1) return code;
  if (count > 1) return usage_error(&command_help, "one command at a time");
  if (count == 0) {
    help_print(stdout);
    return EXIT_OK;
  }
  const Command *command = command_want(&command_help, argv[1]);
  if (!command) return EXIT_USAGE;
  help_print_command(stdout, command);
  return EXIT_OK;
}
