/* Any bytes as a YAML file: what is accepted is written as text that parses to the same text again. */
#include "config/yaml.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  NitiYamlDocument *document, *again;
  char *text, *same;
  if (fuzz_status(niti_yaml_read(&document, fuzz_put("a.yaml", data, size))) != NITI_OK) return 0;
  if (fuzz_status(niti_yaml_write(&text, document, niti_yaml_root(document))) == NITI_OK) {
    FUZZ_CHECK(niti_yaml_parse(&again, text, "again") == NITI_OK);
    FUZZ_CHECK(niti_yaml_write(&same, again, niti_yaml_root(again)) == NITI_OK);
    FUZZ_CHECK(strcmp(text, same) == 0);
    free(text);
    free(same);
    niti_yaml_close(again);
  }
  niti_yaml_close(document);
  return 0;
}
