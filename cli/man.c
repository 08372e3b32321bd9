/* niti man: manual pages in roff, from the tables. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "platform/file.h"
#include "platform/text.h"

typedef struct Arguments {
  const char *folder;
} Arguments;

static const Option options[] = {
    TEXT("all", folder, "DIR", "write every page into this folder instead: niti.1, niti-train.1 and so on"),
    {0},
};

static int run(int argc, char **argv);
const Command command_man = {"man",
                             "[COMMAND] | --all DIR",
                             "print the manual page of niti or of a command, in roff",
                             "niti man train | man -l -",
                             "COMMAND",
                             options,
                             run};

/* Text with what roff would take for its own escaped: backslashes, hyphens, and a point or quote where a line begins. */
static void put(FILE *to, const char *text) {
  if (*text == '.' || *text == '\'') fputs("\\&", to);
  for (; *text; ++text) {
    if (*text == '\\') {
      fputs("\\e", to);
    } else {
      if (*text == '-') fputc('\\', to);
      fputc(*text, to);
    }
  }
}

static void put_line(FILE *to, const char *macro, const char *text) {
  fputs(macro, to);
  put(to, text);
  fputc('\n', to);
}

static void put_head(FILE *to, const char *name, const char *summary) {
  fprintf(to, ".TH %s 1 \"\" \"niti %s\" \"User Commands\"\n.SH NAME\n", name, niti_version());
  put(to, name);
  put_line(to, " \\- ", summary);
}

static void put_option(FILE *to, const Option *o) {
  char name[64];
  (void)snprintf(name, sizeof name, "--%s", o->name);
  fputs(".TP\n\\fB", to);
  put(to, name);
  fputs("\\fR", to);
  if (o->value) {
    fputs(" \\fI", to);
    put(to, o->value);
    fputs("\\fR", to);
  }
  fputc('\n', to);
  put_line(to, "", o->help);
}

static void put_command(FILE *to, const Command *command) {
  static const Option help = {.name = "help", .help = "print a short help"};
  char name[64];
  (void)snprintf(name, sizeof name, "niti-%s", command->name);
  put_head(to, name, command->summary);
  fputs(".SH SYNOPSIS\n", to);
  fprintf(to, "\\fBniti %s\\fR ", command->name);
  put_line(to, "", command->arguments);
  fputs(".SH OPTIONS\n", to);
  for (const Option *o = command->options; o->name; ++o) put_option(to, o);
  put_option(to, &help);
  fputs(".SH EXAMPLE\n.nf\n", to);
  put_line(to, "", command->example);
  fputs(".fi\n.SH SEE ALSO\n.BR niti (1)\n", to);
}

static void put_whole(FILE *to) {
  put_head(to, "niti", "training neural networks with integers only");
  fputs(
      ".SH SYNOPSIS\n\\fBniti\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n.SH DESCRIPTION\n"
      "niti trains convolutional neural networks with integers only, on CPUs and NVIDIA GPUs, and gives the same bits "
      "everywhere.\n"
      ".SH COMMANDS\n",
      to);
  for (const Command *const *c = commands; *c; ++c) {
    if (!(*c)->summary) continue;
    fprintf(to, ".TP\n.BR niti\\-%s (1)\n", (*c)->name);
    put_line(to, "", (*c)->summary);
  }
  fputs(
      ".SH EXIT STATUS\n.TP\n0\ndone\n.TP\n1\nfailed, with one line on standard error\n.TP\n2\nwrong usage\n.TP\n129, 130, 143\n"
      "stopped by SIGHUP, SIGINT or SIGTERM; a run that has begun is saved first\n.SH ENVIRONMENT\n.TP\n.B NITI_DATA\n"
      "the folder of the default data set, in place of /usr/share/datasets/fashion\\-mnist\n",
      to);
}

static int write_page(const char *folder, const Command *command) {
  char path[4096];
  NitiTextMemory memory;
  size_t size = 0;
  (void)snprintf(path, sizeof path, "%s/niti%s%s.1", folder, command ? "-" : "", command ? command->name : "");
  FILE *to = niti_text_open(&memory);
  if (to && command) put_command(to, command);
  if (to && !command) put_whole(to);
  char *text = niti_text_close(&memory, &size);
  if (!text) return fail_with(EXIT_FAILED, "%s: out of memory", path);
  const NitiStatus status = niti_file_replace(path, text, size);
  free(text);
  return status == NITI_OK ? EXIT_OK : fail();
}

static int write_all(const char *folder) {
  int code = write_page(folder, NULL);
  for (const Command *const *c = commands; *c && code == EXIT_OK; ++c) {
    if ((*c)->summary) code = write_page(folder, *c);
  }
  return code;
}

static int run(int argc, char **argv) {
  Arguments given = {0};
  int count;
  const int code = options_parse(&command_man, &given, argc, argv, &count);
  if (code != -1) return code;
  if (count > (given.folder ? 0 : 1)) return usage_error(&command_man, "one page at a time");
  if (given.folder) return write_all(given.folder);
  if (count == 0) {
    put_whole(stdout);
    return EXIT_OK;
  }
  const Command *command = command_want(&command_man, argv[1]);
  if (!command) return EXIT_USAGE;
  put_command(stdout, command);
  return EXIT_OK;
}
