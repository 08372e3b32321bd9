/* The introduction of a run, and the folder of one that was given none. */
#ifndef NITI_CLI_INTRODUCE_H
#define NITI_CLI_INTRODUCE_H

#include "cli.h"

#define RUNS "runs"

/* At once, before anything slow: the recipe. */
void introduce_recipe(FILE *to, const NitiRecipe *recipe);
/* When everything is open (NITI_PROGRESS_START): the rest. */
void introduce_run(FILE *to, const NitiProgress *start);
json_t *introduce_json(const NitiProgress *start);

typedef struct RunName {
  char path[NITI_NAME_MAX + 48];
  bool claimed, made_runs;
} RunName;

/* runs/DATE-RECIPE, or runs/DATE-RECIPE-2 and so on where that is taken. claim: makes the folder, so that of several runs that
 * start together each gets its own. */
NitiStatus run_name(RunName *out, const char *recipe, bool claim);
/* Removes the folder if it is empty, as after a run that could not begin. */
void run_name_release(const RunName *name);

#endif
