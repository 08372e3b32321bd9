/* What the commands share: options, exit codes, words for people and JSON for machines. */
#ifndef NITI_CLI_CLI_H
#define NITI_CLI_CLI_H

#include <jansson.h>
#include <stdio.h>

#include "niti.h"

/* Exit codes; 128 + signal after SIGINT and SIGTERM. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct Command {
  const char *name, *arguments, *summary, *example;
  int (*run)(int argc, char **argv); /* argv[0] is the command's name */
} Command;

extern const Command command_train, command_eval, command_predict, command_summary, command_info, command_hash, command_bench,
    command_data, command_program;

typedef enum OptionKind { OPTION_FLAG, OPTION_TEXT, OPTION_NUMBER, OPTION_LIST } OptionKind;

enum { LIST_MAX = 64 };
typedef struct TextList {
  const char *items[LIST_MAX];
  int count;
} TextList;

typedef struct Option {
  const char *name; /* without the dashes */
  OptionKind kind;
  void *target; /* bool, const char *, int64_t or TextList */
  const char *value, *help;
  int64_t min, max; /* OPTION_NUMBER */
} Option;

/* Parses options (--name value, --name=value, -- ends them); a table ends with name NULL. Positional arguments move to the front
 * of argv[1..]; *count tells how many. `--help` prints the command's help. Returns -1 to go on, else the exit code. */
int options_parse(const Command *command, const Option *table, int argc, char **argv, int *count);
/* Says what is wrong with a command's use; returns EXIT_USAGE. */
__attribute__((format(printf, 2, 3))) int usage_error(const Command *command, const char *format, ...);
/* Prints the library's error; returns the exit code. */
int fail(void);

/* The options that choose a device. */
typedef struct DeviceOptions {
  const char *backend, *isa;
  int64_t threads;
} DeviceOptions;
#define DEVICE_OPTIONS(d)                                                                                                         \
  {"threads", OPTION_NUMBER, &(d).threads, "N", "threads to compute with (default: one a core)", 1, 1024},                        \
      {"isa", OPTION_TEXT, &(d).isa, "NAME",                                                                                      \
       "kernels: auto; cpu: ref, avx2, avx512vnni, amx, neon-dotprod, neon-i8mm; cuda: mma, wgmma (same results)", 0, 0},              \
  {                                                                                                                               \
    "backend", OPTION_TEXT, &(d).backend, "NAME", "where to compute: auto, cpu, cuda, cuda:N (same results)", 0, 0                \
  }
NitiDevice device_of(const DeviceOptions *options);

/* Prints the object as one line on standard output and releases it; returns the exit code. */
int print_json(json_t *object);

double percent(int64_t part, int64_t whole);
double nats(NitiScore score); /* mean loss */

/* Called round long work: a first SIGINT or SIGTERM asks to stop, a second ends the process at once. */
void signals_catch(void);
int signals_caught(void); /* the signal, or 0 */

#endif
