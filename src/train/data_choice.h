/* Which data set is read: the default of a recipe, the run's own, and what identifies one. */
#ifndef NITI_TRAIN_DATA_CHOICE_H
#define NITI_TRAIN_DATA_CHOICE_H

#include "io/checkpoint.h"
#include "train/recipe.h"

/* The folder of the data set that the recipe asks for where none is given (`data.default`); borrowed. NITI_ERROR_ARGUMENT: it
 * asks for none, or that is not installed. */
NitiStatus niti_data_default(const char **path, const NitiRecipe *recipe);

/* A data set's texts of each class (niti_dataset_class_name, niti_dataset_class_label), a line each, in new memory; NULL where one
 * is missing or not a line. */
NitiStatus niti_data_class_texts(char **out, const NitiDataset *dataset, const char *(*text_of)(const NitiDataset *, int32_t));

/* Fails with NITI_ERROR_FORMAT and both lists where two such texts differ; `path` has the first, `owner` the second. */
NitiStatus niti_data_same_names(const char *names, const char *expected, const char *path, const char *owner);

/* A data set to score a network on. Zeroed: none. */
typedef struct NitiTestSet {
  NitiDataset *dataset;
  char *path; /* absolute */
  NitiDataFacts facts;
  int32_t *labels; /* the network's label of each of the data set's; NULL: the same */
} NitiTestSet;

/* Opens the folder `data`; NULL: the one that the run behind `checkpoint` was trained on, where it still is, else the recipe's
 * default. Labels are mapped by name where the run and the data set have names. NITI_ERROR_MODEL: other classes or names. */
NitiStatus niti_test_set_open(NitiTestSet *out, const NitiRecipe *recipe, const NitiCheckpoint *checkpoint, const char *data);
/* Closes the data set; facts and path stay until the next open or niti_test_set_clear. */
void niti_test_set_close(NitiTestSet *set);
void niti_test_set_clear(NitiTestSet *set);

#endif
