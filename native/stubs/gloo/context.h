// libtorch's ProcessGroupGloo.hpp includes five headers of gloo that its packages do not carry. These stand in for them: they declare what that
// header names. Only pointers to these types cross into libtorch, which holds gloo itself; layouts are libtorch's business.
#pragma once
#include <chrono>
namespace gloo {
class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
  // Closes the connections to all peers. Operations that wait on them, here and there, fail.
  void closeConnections();
};
}  // namespace gloo
