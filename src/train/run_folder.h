/* A run's folder: made for one run, locked while a process works in it. */
#ifndef NITI_TRAIN_RUN_FOLDER_H
#define NITI_TRAIN_RUN_FOLDER_H

#include "backend/backend.h"
#include "data/dataset.h"
#include "train/recipe.h"

typedef struct NitiRunFolder NitiRunFolder;

/* Makes the folder and its parents. Refuses one that is not empty, also where another process fills it meanwhile. */
NitiStatus niti_run_folder_create(NitiRunFolder **out, const char *path);
/* Whether create would succeed, as far as can be determined without making anything. */
NitiStatus niti_run_folder_check(const char *path);
/* Opens a run's folder to continue the run; refuses one that holds no run or that another process has locked. */
NitiStatus niti_run_folder_open(NitiRunFolder **out, const char *path);
/* Undoes a create: removes the files that a run writes before its first step, and the folder if create made it and nothing else
 * is there. Keeps the last failure's message. */
void niti_run_folder_clear(NitiRunFolder *folder);
void niti_run_folder_close(NitiRunFolder *folder);
/* Whether it is still the folder at its path, and locked: before anything is written there by name. May be called on any thread.
 * Statuses as niti_lock_check. */
NitiStatus niti_run_folder_hold(const NitiRunFolder *folder);
/* Whether the folder holds a checkpoint to resume from after a failure with the message `why`; *obstacle: what that is about and
 * a resumed run would fail at again, such as a folder in a file's place: the caller's; NULL: nothing. */
NitiStatus niti_run_folder_survey(bool *resumable, char **obstacle, const char *path, const char *why);
const char *niti_run_folder_path(const NitiRunFolder *folder);
/* The lock file used where the file system has no file locks; NULL elsewhere. Owned by the folder. */
const char *niti_run_folder_owner_file(const NitiRunFolder *folder);

/* Writes recipe.yaml. */
NitiStatus niti_run_folder_put_recipe(const NitiRunFolder *folder, const NitiRecipe *recipe);
/* Writes recipe.yaml, model.yaml and environment.json (version, CPU, backend, threads, seed, data kind, path and
 * the SHA-256 of each split, and which split chooses the best epoch). */
NitiStatus niti_run_folder_describe(const NitiRunFolder *folder, const NitiRecipe *recipe, const NitiBackend *backend,
                                    const NitiDataset *dataset, const char *data_path, const char hash[NITI_SPLITS][65],
                                    NitiSplit chosen_on);

#endif
