/* Any text as YAML: what is accepted is written as text that is YAML again, and keeps its form from the second time on. (The
 * first time, quotes may become others.) */
#include "config/yaml.h"
#include "fuzz.h"

/* The text of a parsed text; the caller frees it. NULL: it was refused. */
static char *rewrite(const char *source) {
  NitiYamlDocument *document;
  char *text = NULL;
  if (fuzz_status(niti_yaml_parse(&document, source, "fuzz")) != NITI_OK) return NULL;
  (void)fuzz_status(niti_yaml_write(&text, document, niti_yaml_root(document)));
  niti_yaml_close(document);
  return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *source = fuzz_text(data, size), *first = rewrite(source);
  if (first) {
    char *second = rewrite(first), *third = second ? rewrite(second) : NULL;
    FUZZ_CHECK(third && strcmp(second, third) == 0);
    free(second);
    free(third);
  }
  free(first);
  free(source);
  return 0;
}
