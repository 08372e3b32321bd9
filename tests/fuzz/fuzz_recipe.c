/* A text as a recipe: the resolved text resolves to itself, and every step of the schedules has a value. */
#include "fuzz.h"
#include "train/recipe.h"

static void use(NitiRecipe *recipe) {
  static const int64_t steps[] = {1, 7, 1000, UINT32_MAX};
  NitiRecipe *again;
  FUZZ_CHECK(niti_recipe_parse(&again, recipe->text, "again", NULL, 0, recipe->model->text) == NITI_OK);
  FUZZ_CHECK(strcmp(recipe->text, again->text) == 0);
  niti_recipe_close(again);
  (void)niti_recipe_depends_on_length(recipe);
  for (int i = 0; i < 4; ++i) {
    if (fuzz_status(niti_recipe_place(recipe, steps[i], steps[i])) != NITI_OK) continue;
    for (int64_t step = 0; step < steps[i]; step += steps[i] / 3 + 1) (void)niti_recipe_rate(recipe, step);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  NitiRecipe *recipe;
  char *text = fuzz_text(data, size);
  if (fuzz_status(niti_recipe_parse(&recipe, text, "fuzz", NULL, 0, NULL)) == NITI_OK) {
    use(recipe);
    niti_recipe_close(recipe);
  }
  free(text);
  return 0;
}
