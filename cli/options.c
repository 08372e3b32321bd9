/* Reads a command's options by its table. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "config/closest.h"
#include "platform/text.h"

enum { OPTIONS_MAX = 48 };

int usage_error(const Command *command, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  niti_text_format(text, sizeof text, format, args);
  va_end(args);
  fprintf(stderr, "niti %s: %s", command->name, text);
  fprintf(stderr, "\nusage: niti %s %s (see niti %s --help)\n", command->name, command->arguments, command->name);
  return print_failure(text, EXIT_USAGE);
}

static const Option *find(const Option *table, const char *name, size_t length) {
  for (const Option *o = table; o->name; ++o) {
    if (strlen(o->name) == length && strncmp(o->name, name, length) == 0) return o;
  }
  return NULL;
}

/* word: as written, dashes and all; its first `length` bytes are the option. */
static int unknown_option(const Command *command, const char *word, size_t length) {
  char name[64];
  const char *words[OPTIONS_MAX + 2];
  size_t count = 0;
  const size_t dashes = strspn(word, "-");
  for (const Option *o = command->options; o->name && count < OPTIONS_MAX; ++o) words[count++] = o->name;
  words[count++] = "help";
  words[count] = NULL;
  (void)snprintf(name, sizeof name, "%.*s", length - dashes < sizeof name ? (int)(length - dashes) : 0, word + dashes);
  const char *meant = niti_closest(name, words);
  return usage_error(command, meant ? "unknown option '%s', did you mean '--%s'?" : "unknown option '%s'", word, meant);
}

static int set_number(const Command *command, const Option *o, int64_t *target, const char *value) {
  char *end;
  errno = 0;
  const long long number = strtoll(value, &end, 10);
  if (end == value || *end || errno || number < o->min || number > o->max) {
    return usage_error(command, "--%s: '%s' is not a whole number from %" PRId64 " to %" PRId64, o->name, value, o->min, o->max);
  }
  *target = number;
  return -1;
}

/* "0.25": in thousandths, exactly. */
static bool read_thousandths(int64_t *out, const char *text) {
  const size_t whole = strspn(text, "0123456789"), places = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
  if (whole == 0 || whole > 9 || places > 3 || text[whole + (text[whole] == '.' ? 1 + places : 0)]) return false;
  int64_t value = strtoll(text, NULL, 10);
  for (size_t i = 0; i < 3; ++i) value = 10 * value + (i < places ? text[whole + 1 + i] - '0' : 0);
  *out = value;
  return text[whole] != '.' || places > 0;
}

static int set_decimal(const Command *command, const Option *o, int64_t *target, const char *value) {
  if (read_thousandths(target, value) && *target >= o->min && *target <= o->max) return -1;
  return usage_error(command, "--%s: '%s' is not a number from %" PRId64 ".%03d to %" PRId64 " with at most 3 decimals", o->name,
                     value, o->min / 1000, (int)(o->min % 1000), o->max / 1000);
}

static int set_value(const Command *command, const Option *o, void *target, const char *value) {
  if (o->kind == OPTION_NUMBER) return set_number(command, o, target, value);
  if (o->kind == OPTION_DECIMAL) return set_decimal(command, o, target, value);
  if (o->kind == OPTION_TEXT) {
    *(const char **)target = value;
    return -1;
  }
  TextList *list = target;
  if (list->count == LIST_MAX) return usage_error(command, "--%s: given more than %d times", o->name, LIST_MAX);
  list->items[list->count++] = value;
  return -1;
}

int options_parse(const Command *command, void *given, int argc, char **argv, int *count) {
  bool only_arguments = false;
  *count = 0;
  for (int i = 1; i < argc; ++i) {
    char *word = argv[i];
    if (only_arguments || word[0] != '-' || !word[1]) {
      argv[1 + (*count)++] = word;
      continue;
    }
    if (strcmp(word, "--") == 0) {
      only_arguments = true;
      continue;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
      help_print_command(stdout, command);
      return EXIT_OK;
    }
    const size_t length = strcspn(word, "=");
    const Option *o = length > 2 && word[1] == '-' ? find(command->options, word + 2, length - 2) : NULL;
    if (!o) return unknown_option(command, word, length);
    void *target = (char *)given + o->offset;
    if (o->kind == OPTION_FLAG) {
      if (word[length]) return usage_error(command, "--%s takes no value", o->name);
      *(bool *)target = true;
      continue;
    }
    if (!word[length] && i + 1 == argc) return usage_error(command, "--%s needs a value (%s)", o->name, o->value);
    const int code = set_value(command, o, target, word[length] ? word + length + 1 : argv[++i]);
    if (code != -1) return code;
  }
  return -1;
}
