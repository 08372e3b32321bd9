/* Shared by the commands: options, exit codes, human-readable output and JSON. */
#ifndef NITI_CLI_CLI_H
#define NITI_CLI_CLI_H

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

#include "niti.h"
#include "train/locate.h"

/* Exit codes; 128 + signal after a signal that stopped the work. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_LOST = 3 /* another rank no longer answers */ };

typedef enum OptionKind { OPTION_FLAG, OPTION_TEXT, OPTION_NUMBER, OPTION_DECIMAL, OPTION_LIST } OptionKind;

enum { LIST_MAX = 64 };
typedef struct TextList {
  const char *items[LIST_MAX];
  int count;
} TextList;

/* One option of one command. Parsing, help, man pages and completion all read this. */
typedef struct Option {
  const char *name; /* without the dashes */
  OptionKind kind;
  size_t offset;            /* of its bool, const char *, int64_t or TextList in the command's Arguments */
  const char *value, *help; /* value: what follows it, in capitals; NULL: a flag */
  const char *words; /* what completes the value: words with '|' between them, or DIR, FILE, RECIPE, MODEL, NETWORK, COMMAND */
  int64_t min, max;  /* OPTION_NUMBER, and OPTION_DECIMAL, whose values are in thousandths */
} Option;

/* Rows of a command's table, which ends with {0}; each command's file calls its struct of values Arguments. */
#define FLAG(name, member, help) \
  { name, OPTION_FLAG, offsetof(Arguments, member), NULL, help, NULL, 0, 0 }
#define TEXT(name, member, value, help) \
  { name, OPTION_TEXT, offsetof(Arguments, member), value, help, value, 0, 0 }
#define CHOICE(name, member, words, help) \
  { name, OPTION_TEXT, offsetof(Arguments, member), "NAME", help, words, 0, 0 }
#define NUMBER(name, member, value, help, min, max) \
  { name, OPTION_NUMBER, offsetof(Arguments, member), value, help, NULL, min, max }
#define DECIMAL(name, member, value, help, min, max) \
  { name, OPTION_DECIMAL, offsetof(Arguments, member), value, help, NULL, min, max }
#define LIST(name, member, value, help) \
  { name, OPTION_LIST, offsetof(Arguments, member), value, help, value, 0, 0 }

typedef struct Command {
  const char *name, *arguments, *summary, *example;
  const char *takes; /* what completes its arguments: one entry per argument as in Option.words, the last for all that follow */
  const Option *options;             /* ends with name NULL */
  int (*run)(int argc, char **argv); /* argv[0] is the command's name */
} Command;

/* commands.c: every command, ends with NULL. */
extern const Command *const commands[];
/* The command of that name, or NULL. */
const Command *command_find(const char *name);
/* The same for one that has a help, for the command `by`; where there is none, says so as a wrong use of `by`. */
const Command *command_want(const Command *by, const char *name);
/* ", did you mean 'NAME'?" or ""; returns buffer of NITI_HINT_MAX bytes. */
const char *command_hint(char *buffer, const char *name);

/* Parses options (--name value, --name=value, -- ends them) into the zeroed Arguments `given`. Positional arguments move to the
 * front of argv[1..]; *count says how many. -h and --help print the command's help. Returns -1 to go on, else the exit code. */
int options_parse(const Command *command, void *given, int argc, char **argv, int *count);
/* Prints the help of one command, or of the whole tool. */
void help_print_command(FILE *to, const Command *command);
void help_print(FILE *to);
/* Prints text filled into lines of `width` columns that begin with `indent` spaces; the first line is `at` columns long already.
 */
void help_fill(FILE *to, const char *text, int at, int indent, int width);
/* Says what is wrong with a command's use; returns EXIT_USAGE. */
__attribute__((format(printf, 2, 3))) int usage_error(const Command *command, const char *format, ...);
/* Sets how results are printed, from --json and --json-stream anywhere among the arguments. */
void output_choose(int argc, char **argv);
/* Where prose goes: standard output, or standard error where that is for JSON. */
FILE *output_prose(void);
/* Prints the library's error, with JSON as an object too; returns the exit code. */
int fail(void);
/* The same with another message and exit code. */
__attribute__((format(printf, 2, 3))) int fail_with(int code, const char *format, ...);
/* Where results are JSON, prints the object {"error": message, "exit_code": code}. Returns code. */
int print_failure(const char *message, int code);

/* The options that choose a device. */
typedef struct DeviceOptions {
  const char *backend, *isa, *tuning;
  int64_t threads;
} DeviceOptions;
#define DEVICE_OPTIONS(d)                                                                                                   \
  NUMBER("threads", d.threads, "N", "threads to compute with (default: one per core that affinity and CPU quota allow)", 1, \
         1024),                                                                                                             \
      CHOICE("isa", d.isa, "auto|ref|avx2|avx512vnni|amx|neon-dotprod|neon-i8mm|mma|wgmma",                                 \
             "kernels: auto; cpu: ref, avx2, avx512vnni, amx, neon-dotprod, neon-i8mm; cuda: mma, wgmma (same results)"),   \
      CHOICE("backend", d.backend, "auto|cpu|cuda", "where to compute: auto, cpu, cuda, cuda:N (same results)")
#define TUNING_OPTION(d)           \
  TEXT("tuning", d.tuning, "FILE", \
       "the file of `niti tune` to choose kernels by, or off (default: " TUNING_FILE ", where it is there; same results)")
#define TUNING_FILE "$XDG_CACHE_HOME or ~/.cache/niti/tuning.json"
#define JSON_OPTION FLAG("json", json, "one JSON object on standard output")
/* The options that say whether images are scored together with their mirrors; both at a time are an error. */
typedef struct FlipOptions {
  bool on, off;
} FlipOptions;
#define FLIP_OPTIONS(f)                                                                                        \
  FLAG("flip", f.on, "add the logits of each image's mirror, whatever the recipe says under evaluation.flip"), \
      FLAG("no-flip", f.off, "do not")
/* Returns -1 to go on, else the exit code. */
int flip_check(const Command *command, const FlipOptions *options);
/* Without either option the recipe decides. */
void flip_set(NitiModel *model, const FlipOptions *options);
/* What it points to lives until the next call. */
NitiDevice device_of(const DeviceOptions *options);
/* The path of the user's own tuning file; false: neither XDG_CACHE_HOME nor HOME names a place for it. */
enum { TUNING_PATH_MAX = 4096 };
bool tuning_path(char path[TUNING_PATH_MAX]);

/* From json_watch on: whether every part of every JSON value could be made; jansson leaves out what it has no memory for. */
void json_watch(void);
bool json_is_whole(void);

/* Prints the object as one line on standard output and releases it; returns the exit code. */
int print_json(json_t *object);
/* The same; of --json-stream the object says which event it is. */
int print_event(const char *event, json_t *object);

/* Which data set was read, a line for it and one for each split; the same as JSON. */
void data_print(FILE *to, const NitiDataFacts *facts);
json_t *data_json(const NitiDataFacts *facts);

/* Finds the network that `name` refers to; says on standard error if it is not trained. Returns whether it was found. */
bool locate_weights(NitiLocation *out, const char *name);

/* Prints "niti: " and a line on standard error, escaped where a name in it is not text. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* A name of any bytes as JSON: escaped where it is not text (niti_text_escape). */
json_t *json_name(const char *name);
/* The same on a stream. */
void print_name(FILE *to, const char *name);

double percent(int64_t part, int64_t whole);
double nats(NitiScore score); /* mean loss */

/* process.c */
/* Opens those of the descriptors 0 to 2 that are closed on /dev/null, so that no file gets their number and their output. */
void descriptors_open(void);
/* -1 to go on, or the exit code where the stacks of this process and its threads are too small. */
int stack_check(void);
/* From then on the process ends with a message, not with SIGBUS, where a mapped file cannot be read any more. */
void mapping_watch(void);
/* From then on a file beyond the size limit is an error of the write, not the end of the process by SIGXFSZ. */
void file_limit_watch(void);
/* From then on SIGUSR1 asks to save, once there is something to save, and never ends the process. What the parent ignores stays
 * ignored here and below. */
void signals_watch(void);
/* Called round long work that can be saved; before it, there is nothing to lose. A first SIGINT, SIGTERM or SIGHUP asks to stop,
 * a later SIGINT or SIGTERM ends the process at once. A broken pipe is an error of the write, not the end of the process. */
void signals_catch(void);
int signals_caught(void); /* the signal that asks to stop, or 0 */
/* Whether SIGUSR1 has come since the last call. */
bool signals_save_asked(void *context);
/* Hands over what was printed on standard output. A pipe without a reader asks to stop, as SIGPIPE would. */
void output_flush(void);
/* Whether standard error is a terminal on which a line can be drawn over. */
bool terminal_can_redraw(void);
/* Its columns; a longer line would wrap and could not be drawn over. */
int terminal_columns(void);

/* progress.c: how far the work is, on standard error: a line that changes on a terminal, lines of their own elsewhere */
typedef struct ProgressLine {
  bool terminal, open; /* open: something is drawn that the next output must clear */
  bool begun;          /* reading of data was announced */
  int64_t drawn;       /* when */
} ProgressLine;
void progress_start(ProgressLine *line);
/* Whether the next line is due: on a terminal ten times a second, elsewhere after `pause` nanoseconds. */
bool progress_is_due(ProgressLine *line, int64_t pause);
/* Draws text, escaped, and cut where it would wrap. */
void progress_draw(ProgressLine *line, const char *text);
/* "niti: WHAT: DONE of ALL" (all 0: unknown), where it is due: elsewhere than on a terminal after a second, then twice a minute.
 */
void progress_data(ProgressLine *line, const char *what, int64_t done, int64_t all);
void progress_clear(ProgressLine *line);

#endif
