"""What one would use instead, each as its own documentation advises, and each a program of its own.

An application moves people and schedules its stops; it takes orders on its standard input, see ``orders``. Where the
peer has workers apart from the application, they are processes, too. None of them asks the vendor again who is in the
room before it sends the request, none keeps what was answered, and none is paced: that is to their favour.
"""
