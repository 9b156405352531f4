#include <torch/types.h>
extern "C" int te_probe() { return 1; }
