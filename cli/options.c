#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static void print_help(const Command *command, const Option *table) {
  printf("usage: niti %s %s\n\n%s\n\noptions:\n", command->name, command->arguments, command->summary);
  for (const Option *o = table; o->name; ++o) {
    char left[64];
    (void)snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
    printf("  %-24s %s\n", left, o->help);
  }
  printf("  %-24s %s\n\nexample:\n  %s\n", "--help", "this text", command->example);
}

int usage_error(const Command *command, const char *format, ...) {
  va_list args;
  fprintf(stderr, "niti %s: ", command->name);
  va_start(args, format);
  (void)vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, "\nusage: niti %s %s (see niti %s --help)\n", command->name, command->arguments, command->name);
  return EXIT_USAGE;
}

static const Option *find(const Option *table, const char *name, size_t length) {
  for (const Option *o = table; o->name; ++o) {
    if (strlen(o->name) == length && strncmp(o->name, name, length) == 0) return o;
  }
  return NULL;
}

static int set_number(const Command *command, const Option *o, const char *value) {
  char *end;
  errno = 0;
  const long long number = strtoll(value, &end, 10);
  if (end == value || *end || errno || number < o->min || number > o->max) {
    return usage_error(command, "--%s: '%s' is not a whole number from %" PRId64 " to %" PRId64, o->name, value, o->min, o->max);
  }
  *(int64_t *)o->target = number;
  return -1;
}

static int set_value(const Command *command, const Option *o, const char *value) {
  if (o->kind == OPTION_NUMBER) return set_number(command, o, value);
  if (o->kind == OPTION_TEXT) {
    *(const char **)o->target = value;
    return -1;
  }
  TextList *list = o->target;
  if (list->count == LIST_MAX) return usage_error(command, "--%s: given more than %d times", o->name, LIST_MAX);
  list->items[list->count++] = value;
  return -1;
}

int options_parse(const Command *command, const Option *table, int argc, char **argv, int *count) {
  bool only_arguments = false;
  *count = 0;
  for (int i = 1; i < argc; ++i) {
    char *word = argv[i];
    if (only_arguments || strncmp(word, "--", 2) != 0) {
      if (!only_arguments && word[0] == '-' && word[1]) return usage_error(command, "unknown option '%s'", word);
      argv[1 + (*count)++] = word;
      continue;
    }
    if (!word[2]) {
      only_arguments = true;
      continue;
    }
    if (strcmp(word, "--help") == 0) {
      print_help(command, table);
      return EXIT_OK;
    }
    const char *equals = strchr(word, '=');
    const size_t length = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    const Option *o = find(table, word + 2, length);
    if (!o) return usage_error(command, "unknown option '%s'", word);
    if (o->kind == OPTION_FLAG) {
      if (equals) return usage_error(command, "--%s takes no value", o->name);
      *(bool *)o->target = true;
      continue;
    }
    if (!equals && i + 1 == argc) return usage_error(command, "--%s needs a value (%s)", o->name, o->value);
    const int code = set_value(command, o, equals ? equals + 1 : argv[++i]);
    if (code != -1) return code;
  }
  return -1;
}
