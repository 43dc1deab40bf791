"""How a server can fail, by whose fault."""


class ServerError(RuntimeError):
    """TorchServe could not serve this configuration.

    Attributes:
        cause: a short name, the same for the same kind of failure.
        log: the last lines of the server's log, if it wrote any.
        host_fault: the host, not the configuration, is to blame: worth one more try.
    """

    def __init__(self, cause: str, message: str, log: str = "", host_fault: bool = False):
        super().__init__(cause, message, log, host_fault)
        self.cause = cause
        self.message = message
        self.log = log
        self.host_fault = host_fault

    def __str__(self) -> str:
        return f"{self.cause}: {self.message}"
