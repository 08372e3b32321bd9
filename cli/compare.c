/* Compares the options of `niti train` among the ranks of a run. */
#define _GNU_SOURCE
#include "compare.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Not compared: what concerns a rank's own device, its copy of the data and what it prints; and --run, which rank 0 uses alone.
 */
static bool may_differ(const char *name) {
  static const char *const names[] = {"threads", "isa", "backend", "tuning", "data", "json", "json-stream", "quiet", "run"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    if (strcmp(name, names[i]) == 0) return true;
  }
  return false;
}

/* Rank 0 alone opens them, so that their paths may differ. */
static bool is_path(const char *name) { return strcmp(name, "--resume") == 0 || strcmp(name, "--init") == 0; }

static void add_text(NitiFacts *facts, const char *name, const char *value) {
  char *quoted = NULL;
  if (value && !is_path(name) && asprintf(&quoted, "'%s'", value) < 0) {
    facts->failed = true;
    return;
  }
  niti_facts_add(facts, name, quoted ? quoted : value ? "one" : "none");
  free(quoted);
}

static void add_option(NitiFacts *facts, const Option *option, const void *given) {
  const void *value = (const char *)given + option->offset;
  char name[64], number[32];
  (void)snprintf(name, sizeof name, "--%s", option->name);
  if (option->kind == OPTION_FLAG) {
    niti_facts_add(facts, name, *(const bool *)value ? "it" : "none");
  } else if (option->kind == OPTION_TEXT) {
    add_text(facts, name, *(const char *const *)value);
  } else if (option->kind == OPTION_LIST) {
    const TextList *list = value;
    for (int i = 0; i < list->count; ++i) add_text(facts, name, list->items[i]);
    add_text(facts, name, NULL);
  } else {
    const int64_t n = *(const int64_t *)value;
    (void)snprintf(number, sizeof number, "%" PRId64, n);
    add_text(facts, name, n < 0 || (n == 0 && option->min > 0) ? NULL : number);
  }
}

NitiStatus options_compare(NitiRanks *ranks, const Option *options, const void *given, bool recipe) {
  NitiFacts facts = {0};
  niti_facts_add(&facts, "a recipe", recipe ? "one" : "none");
  for (const Option *option = options; option->name; ++option) {
    if (!may_differ(option->name)) add_option(&facts, option, given);
  }
  return niti_ranks_compare(ranks, &facts);
}
