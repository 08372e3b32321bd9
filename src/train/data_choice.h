/* Chooses the data set to read: a recipe's default or the run's own; and compares class names. */
#ifndef NITI_TRAIN_DATA_CHOICE_H
#define NITI_TRAIN_DATA_CHOICE_H

#include "io/checkpoint.h"
#include "train/recipe.h"

/* The folder of the recipe's default data set (`data.default`); borrowed. NITI_ERROR_ARGUMENT: the recipe names none, or it is
 * not installed. */
NitiStatus niti_data_default(const char **path, const NitiRecipe *recipe);

/* A data set's texts of each class (niti_dataset_class_name, niti_dataset_class_label), one per line, in new memory; NULL where
 * one is missing or contains a newline. */
NitiStatus niti_data_class_texts(char **out, const NitiDataset *dataset, const char *(*text_of)(const NitiDataset *, int32_t));

/* Fails with NITI_ERROR_FORMAT, naming `source` and the key of its metadata, where such a text of a stranger has not `classes`
 * lines, each ended, or an empty one. Names may be equal, as in a data set. NULL: none, which is NITI_OK. */
NitiStatus niti_data_check_texts(const char *texts, int32_t classes, const char *key, const char *source);

/* Fails with NITI_ERROR_FORMAT, showing both lists, if two such texts differ; `path` has the first, `owner` the second. */
NitiStatus niti_data_same_names(const char *names, const char *expected, const char *path, const char *owner);

/* A data set to score a network on. Zeroed: none. */
typedef struct NitiTestSet {
  NitiDataset *dataset;
  char *path; /* absolute */
  NitiDataFacts facts;
  int32_t *labels; /* the network's label of each of the data set's; NULL: the same */
} NitiTestSet;

/* Opens the split (niti_model_evaluate_split) of the folder `data`; NULL: the one that `checkpoint` was trained on, if it still
 * exists, else the recipe's default. Labels are mapped by name where the run and the data set have names. NITI_ERROR_MODEL: other
 * classes or names. The watch is copied. */
NitiStatus niti_test_set_open(NitiTestSet *out, const NitiRecipe *recipe, const NitiCheckpoint *checkpoint, const char *data,
                              NitiSplit split, const NitiDataWatch *watch);
/* Closes the data set; facts and path remain valid until the next open or niti_test_set_clear. */
void niti_test_set_close(NitiTestSet *set);
void niti_test_set_clear(NitiTestSet *set);

#endif
