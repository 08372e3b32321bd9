/* What operands an operation may have: the part of the contract of kernels.h that the executor checks. */
#ifndef NITI_BACKEND_CONTRACT_H
#define NITI_BACKEND_CONTRACT_H

#include "backend/kernels.h"

/* The first operand whose dtype or exponents no kernel of any device can read or write; NITI_NONE if there is none. */
int32_t niti_foreign_operand(const NitiProgram *, const NitiOperation *);

/* Whether the outputs y and inputs x (NITI_OPERANDS_MAX each; data NULL where there is none) have the sizes that the attributes
 * require. call and pool: those of the operation, at the batch of the run. */
bool niti_operands_fit(NitiOpcode, const NitiTensor *y, const NitiTensor *x, const NitiConvCall *call, const NitiPool *pool);

#endif
