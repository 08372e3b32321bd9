/* Lines as --set options of a built-in recipe. */
#define _DEFAULT_SOURCE /* strsep */
#include "fuzz.h"
#include "train/recipe.h"

enum { SETS_MAX = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *sets[SETS_MAX];
  int count = 0;
  NitiRecipe *recipe, *again;
  char *text = fuzz_text(data, size), *next = text;
  for (char *line; count < SETS_MAX && (line = strsep(&next, "\n"));) sets[count++] = line;
  if (fuzz_status(niti_recipe_load(&recipe, "mlp-mnist", sets, count)) == NITI_OK) {
    FUZZ_CHECK(niti_recipe_parse(&again, recipe->text, "again", NULL, 0, recipe->model->text) == NITI_OK);
    FUZZ_CHECK(strcmp(recipe->text, again->text) == 0);
    niti_recipe_close(again);
    niti_recipe_close(recipe);
  }
  free(text);
  return 0;
}
